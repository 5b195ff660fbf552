"""The findings of the paper, reproduced in small: what is run, the runs, and the page of them."""
