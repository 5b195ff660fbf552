"""The paper's findings in small: the plan of experiments, their runs, results and report."""
