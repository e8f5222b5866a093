"""The numbers that verdicts hang on."""

import math

from normbench.training.datasets import find_dataset

# The significance level of a whole session: at most 1 in 100 sessions without a change gives an
# alarm (docs/verdicts.md has what real rows give).
LEVEL = 0.01

# How much worse a mean must be to matter, by family of data sets: a fraction of the test images.
# It is about one sampling error of the accuracy that networks reach there.
MINIMUM_EFFECT = {"digits": 0.01, "mnist": 0.001, "fashion-mnist": 0.003, "cifar10": 0.005}

# The fewest runs of a case that can give an alarm: accuracies have long lower tails, which fewer
# runs do not average out, though the worst is left out of account (docs/verdicts.md).
FEWEST_RUNS = 5

# The one-sided p-value of a single case below which it looks worse, and is trained again.
SUSPICION = 0.02

# How many further seeds of a case that looks worse are trained at most, and after how many of them
# it is looked at before: most suspicions are gone by then, and what is plain is called so.
CONFIRMING_SEEDS = 9
EARLY_LOOKS = (2, 4)

# The numbers of runs after which a case of --bench-seeds auto is looked at.
INTERIM_RUNS = (1, 2, 3, 5, 8)

# The most looks at a case that can give an alarm: the one after the planned runs, and three while
# it is confirmed; of --bench-seeds auto, those after 5 and 8 runs, and two while it is confirmed.
LOOKS = 4

# The confidence with which a drop by the minimum effect is ruled out.
CONFIDENCE = 0.95

# The most further seeds that a comparison asks for, to decide what is undecided.
MOST_SEEDS = 20

# The share of undecided cases among those compared above which a strict session fails.
MAX_UNDECIDED = 0.25

# Standard errors of room, below which a case is close to its target.
MARGIN = 2.0

# A session's median speed, as a share of the baseline's, below which a warning is due.
SLOW = 0.9

# The one-sided level of the verdict on a claim: of 100 claims that are just not so, one may come
# out wrongly.
CLAIM_LEVEL = 0.01


def minimum_effect(dataset: str) -> float:
    """Return how much worse a mean on a data set must be to matter, a fraction.

    Of a family without an entry in MINIMUM_EFFECT it is the sampling error of an accuracy on its
    test images at the worst, that of 50 %: sqrt(1 / (4 * images)), 0.5 points on 10,000 images. A
    smaller drop would be no more than another choice of test images makes; nothing else is known
    of a data set on which nobody has trained yet.
    """
    facts = find_dataset(dataset)
    return MINIMUM_EFFECT.get(facts.family, math.sqrt(0.25 / facts.test_images))
