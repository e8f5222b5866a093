"""The numbers that verdicts hang on."""

# The significance level of a whole session. It leaves room below the 1 in 100 false alarms that a
# nightly may give: where the cases' variances differ, simulated sessions gave up to 1.1 % at 0.01
# and 0.8 % at 0.007 (docs/verdicts.md).
LEVEL = 0.007

# How much worse a mean must be to matter, by family of data sets: a fraction of the test images.
MINIMUM_EFFECT = {"digits": 0.01, "mnist": 0.001, "cifar10": 0.005}

# Standard errors of room, below which a case is close to its target.
MARGIN = 2.0

# A session's median speed, as a share of the baseline's, below which a warning is due.
SLOW = 0.9

# The numbers of runs after which a case of --bench-seeds auto is looked at. The first two may end
# the search, but never with an alarm: accuracies are skewed towards worse, which t-tests on one or
# two runs take for a drop (docs/verdicts.md).
ALARM_RUNS = (3, 5, 8)
INTERIM_RUNS = (1, 2, *ALARM_RUNS)

# The one-sided level of the verdict on a claim: of 100 claims that are just not so, one may come
# out wrongly.
CLAIM_LEVEL = 0.01
