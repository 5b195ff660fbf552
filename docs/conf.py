"""The site: the Markdown of this repository as it stands, what is made from code, and furo."""

import re
import warnings
from collections.abc import Callable, Iterator
from textwrap import indent
from typing import Any

from tyro import conf as tyro_conf
from tyro import extras

from videomae.commands import flags
from videomae.recipe import find_recipe, recipe_names
from videomae.version import __version__

project, author, release, version = "videomae", "the videomae authors", __version__, __version__
html_title = f"videomae {__version__}"
language = "en"

# The source folder is the repository, so that links between its files hold there and here.
root_doc = "docs/index"
include_patterns = ["docs/*.md", "benchmarks/*.md", "CHANGELOG.md", "CONTRIBUTING.md"]
include_patterns += ["SECURITY.md", "fuzz/README.md", "reproduction/README.md"]
include_patterns += ["reproduction/**/README.md"]
exclude_patterns = ["build", "site", ".venv"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
default_role = "code"  # a name in single backticks, as in the docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False


def commands() -> Iterator[str]:
    """The options of all commands, from the classes that they are read into."""
    for title, group in flags.GROUPS.items():
        yield f"## {title.capitalize()}"
        for name, kind in group.items():
            yield f"### videomae {name}\n\n{kind.__doc__}"
            with warnings.catch_warnings():  # deprecated by tyro, which has no other list of them
                warnings.simplefilter("ignore", DeprecationWarning)
                parser = extras.get_parser(kind, config=(tyro_conf.FlagCreatePairsOff,))
            for action in parser._actions[1:]:
                words = " ".join([*action.option_strings[:1], *filter(None, [action.metavar])])
                help_text = re.sub(r"docs/(\w+\.md)", r"[\1](\1)", action.help or "")
                yield f"`{words}`\n: {help_text}"


def recipes() -> Iterator[str]:
    """The files of the recipes."""
    for name in recipe_names():
        yield f"## {name}\n\n```toml\n{find_recipe(name).read_text()}```"


GENERATED: dict[str, Callable[[], Iterator[str]]] = {"commands": commands, "recipes": recipes}


def fill(_: object, __: str, source: list[str]) -> None:
    """Put what is generated where a page asks for it: `<!-- generated: commands -->`."""
    for name, parts in GENERATED.items():
        mark = f"<!-- generated: {name} -->"
        if mark in source[0]:
            source[0] = source[0].replace(mark, "\n\n".join(parts()))


def restructure(*arguments: Any) -> None:
    """Docstrings are plain text: fenced code, and pictures that are indented, become blocks."""
    lines = arguments[-1]
    text = "\n".join(lines)
    text = re.sub(
        r"^```(\w+)\n(.*?)^```$",
        lambda found: f".. code-block:: {found[1]}\n\n{indent(found[2], '   ')}",
        text,
        flags=re.M | re.S,
    )
    text = re.sub(r"(?<=[^\s:])\n\n(?=  +\S)", "\n\n::\n\n", text)
    lines[:] = text.split("\n")


def point_to_versions(app: Any, exception: Exception | None) -> None:
    """Beside the folders of all versions, a page that leads to this one."""
    if exception is None and app.builder.name == "html":
        place = f"{__version__}/docs/index.html"
        (app.outdir.parent / "index.html").write_text(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={place}">'
            f'<a href="{place}">videomae {__version__}</a>\n'
        )


def setup(app: Any) -> None:
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", restructure, priority=400)
    app.connect("build-finished", point_to_versions)
