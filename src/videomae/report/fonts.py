"""Fonts for names in any script: pictures have their letters, and no boxes."""

import re
import warnings
from functools import lru_cache
from pathlib import Path


def fonts_for(text: str) -> list[Path]:
    """The font files that have the letters of a text between them; the usual one comes first.

    The usual one is DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic. For others
    the fonts of this machine are searched, and where none has a letter, that is warned of once.
    """
    return list(_fonts_for("".join(sorted(set(text)))))


@lru_cache(maxsize=256)
def _fonts_for(letters: str) -> tuple[Path, ...]:
    usual, *others = installed()
    chosen = [usual]
    missing = {letter for letter in letters if letter.isprintable()} - letters_of(usual)
    while missing and others:
        best = max(others, key=lambda font: len(missing & letters_of(font)))
        if not missing & letters_of(best):
            break
        chosen.append(best)
        missing -= letters_of(best)
    if missing:
        warnings.warn(
            f"no installed font has the letters {''.join(sorted(missing))}; pictures show boxes "
            "for them; install a font, such as the package fonts-noto-cjk for Chinese, Japanese "
            "and Korean",
            stacklevel=4,
        )
    return tuple(chosen)


@lru_cache(maxsize=1)
def installed() -> tuple[Path, ...]:
    """DejaVu Sans, then all other upright fonts of usual weight on this machine."""
    from matplotlib import font_manager

    # Not matplotlib's own list, which does not know a font that was installed since it was made.
    others = sorted(
        path
        for path in map(Path, font_manager.findSystemFonts())
        if not re.search("bold|italic|oblique|light|thin|black", path.stem, re.IGNORECASE)
    )
    # sans serif before others, as the usual one is
    others.sort(key=lambda path: not re.search("sans|cjk|hei|gothic", path.stem, re.IGNORECASE))
    return tuple(dict.fromkeys([Path(font_manager.findfont("DejaVu Sans")), *others]))


def families_for(text: str) -> list[str]:
    """The names that matplotlib has for `fonts_for` a text, for its `fontfamily`."""
    from matplotlib import font_manager

    known = {font.fname for font in font_manager.fontManager.ttflist}
    fonts = fonts_for(text)
    for font in fonts:
        if str(font) not in known:
            font_manager.fontManager.addfont(font)
    return [font_manager.get_font(font).family_name for font in fonts]


@lru_cache(maxsize=1024)
def letters_of(font: Path) -> frozenset[str]:
    """The letters of a font; none of a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(str(font)).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
