"""The commented plan that people start from; read back, it is the default plan."""

__all__ = ["plan_template"]


def plan_template() -> str:
    """Return a commented plan to start from; read back, it is the default plan."""
    return TEMPLATE


TEMPLATE = """\
# A plan for mnemoscope. Check it before any work:  mnemoscope plan check PLAN.toml
# What is commented out shows the default or an example. Unknown keys are refused.

name = "audit"            # title of the report
seed = 0                  # root of all randomness

[data]
name = "digits"           # a data set's name, or the path of an .npz, an image folder or a CSV table
# root = "data"           # where named data sets are kept
# label_column = "label"  # for tables
# download = false        # whether a named data set may be fetched
# canary_noise = 0.5      # add known noise to the audited records, for the measure gaussian_poisoning

[design]                  # which record plays which role in which model
mode = "random-roles"
models = 72
audited = 600             # kept, forgotten or never seen, by model
background = 400          # every model is trained on these; never scored
population = 300          # the attacker's own non-members
calibration = 200
test = 297                # for accuracy
folds = 2
# counts = [24, 24, 24]   # models in which each audited record is kept, forgotten, never seen; thirds by default
# requests = 3            # deletions one after another, each audited; 1 by default

[recipe]                  # how models are trained
name = "digits-mlp"
# subject = "subject.py"  # your own model instead of the recipe's architecture: `mnemoscope init` writes one
# [recipe.overrides]
# epochs = 30
# lr = 0.2

# The ways of deleting to audit; without any, the controls and baselines are compared.
# [[subjects]]
# method = "finetune"
# settings = { epochs = 5 }
# [[subjects]]
# name = "mine"
# method = "path/to/file.py:Name"

[attacks]
# primary = "lira"        # decides WITHIN BOUND; by default the strongest that the input allows
# run = ["lira", "rmia", "path/to/file.py:Name"]
queries = ["identity"]    # images also: "flip", "shift:2,0", ...
# measures = ["klom"]      # printed beside the attacks, each with its floor; [] for none
# reconstructions = ["linear_reconstruction"]
# [attacks.settings.rmia]
# gamma = 1.0

[defences]                # what could help, tried in the same audit
# answers = ["label-only", "top:1", "temperature:5", "round:2"]
# dp_noise = [1.0]        # DP-SGD: each noise multiplier trains a fleet of its own (extra "dp")
# dp_clip = 1.0

[policy]                  # the bounds; or, above the first table, policy = "policy.toml"
# alpha = 0.01            # by default the smallest that the counts can bear

[runtime]                 # where and how fast; changes no estimand
device = "auto"
# threads = 1
# stack = 8               # models trained together; measured once by default
# engine = "process"      # compute in several processes
# workers = 2
"""
