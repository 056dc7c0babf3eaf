"""Losses, optimizers, the train step and the loop around it; one file per idea."""
