"""`python -m t5jax`: the same as the console script."""

import sys

from t5jax.cli import main

sys.exit(main())
