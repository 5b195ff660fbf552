"""What needs no parser: the texts of `videomae --help` and --version.

Nothing is imported here, so that they are there at once; `flags` has the options.
"""

from videomae.version import __version__

OVERVIEW = f"""\
videomae {__version__}: masked autoencoders for video

use a model:
  classify      Name what happens in videos.
  embed         Describe videos by vectors.
  timeline      Say what happens when in long videos: segments, subtitles, a picture.
  index         Describe videos, or each stretch of long ones, so that `search` finds them.
  search        Find the videos of an index that are most like a video or a stretch of one.
  reconstruct   Hide most of a video and let a pre-trained model reconstruct it.
  explain       Show which places and moments of videos speak for a label.
  serve         Answer in a browser and over HTTP, about uploaded videos.

videos and data:
  probe         Show frames, size, rate and codec of videos.
  prepare       Make one checked manifest of a published list or a folder of videos.
  duplicates    Find copies among videos, and test videos that training has seen.
  actions       Render the built-in data set: short videos of people, labelled by what they do.

train and measure:
  finetune      Train a classifier on a folder of videos per class.
  pretrain      Pre-train a model on videos, by hiding most of them.
  evaluate      Measure a classifier's accuracy on a folder of videos per class.
  linear-probe  Measure a pre-trained encoder by nearest neighbours and a linear probe.
  recipes       List the training recipes that come with the package, or print one of them.

more:
  demo          Show everything in a few minutes: classify, reconstruct and train, all on one page.
  convert       Convert weights of any known format to that of transformers or of the original code.
  export        Write a model as a file that runs without this package: ONNX, OpenVINO, a web page.
  space         Write a folder to push as a Hugging Face Space: the page of `serve`.
  bench         Measure how fast this machine is: models, training, decoding, whole files.
  doctor        Say what is installed here, what will be used and why, and try whether it works.

videomae COMMAND --help lists the options of a command; --version the version."""


def quick_answer(arguments: list[str]) -> str | None:
    """What these words of a command line ask for, where they ask for no command."""
    if arguments in (["--version"], ["-V"]):
        return f"videomae {__version__}"
    return OVERVIEW if arguments in ([], ["--help"], ["-h"]) else None


def lines_by_group() -> dict[str, dict[str, str]]:
    """The names of the commands in their groups, and a line on each."""
    groups = {}
    for block in OVERVIEW.split("\n\n")[1:-1]:
        title, *lines = block.split("\n")
        pairs = (line.partition("  ") for line in map(str.strip, lines))
        groups[title.removesuffix(":")] = {name: about.strip() for name, _, about in pairs}
    return groups
