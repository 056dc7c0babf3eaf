"""Tasks and mixtures looked at before a run: what there is, and what the model would see.

catalog.py          a table of every task and mixture that has a name
task_preview.py     first examples, lengths, truncation, packing of a task
mixture_preview.py  sizes and rates of a mixture
noise_spans.py      which spans of a text an objective hid
task_report.py      previews as text; task_page.py, svg_plots.py: as an HTML page
"""
