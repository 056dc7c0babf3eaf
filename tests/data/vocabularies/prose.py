"""Sentences that nobody published, enough of them for a vocabulary of a hundred pieces."""

SENTENCES = [
    "A barge carried 37 crates of quinces up the river before the frost came.",
    "Nobody in the village had heard the bell since the old tower fell.",
    "The cook salts the water, waits, and adds one handful of barley at a time.",
    "If the map is right, the ford lies two miles east of the broken mill.",
    "She wrote the numbers 4, 15 and 230 on the wall and left them there.",
]
