"""The measures of depth, which made-up rows are of."""

from grid.results.measures import DEPTH
from grid.results.results_csv import result_columns

SSIM, MSE = DEPTH.headline, DEPTH.named["mse"]
METRICS, DEFAULTS = DEPTH.named, DEPTH.margins
RESULT_COLUMNS = result_columns()
