"""How stored pictures are turned to be shown upright: rotation and mirroring in the metadata."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned to be shown: first transposed, then flipped."""

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    rotation_degrees: int = 0  # clockwise

    @classmethod
    def of(cls, frame: Any) -> "Orientation":
        """Read the display matrix (a b u, c d v, x y w): x' = a x + c y, y' = b x + d y.

        Angles between quarter turns, which no camera writes, count as the nearest.
        """
        try:
            data = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # PyAV does not know every kind of data beside a picture, such as EXIF
            angle = np.radians(-frame.rotation)
            a, b, c, d = np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)
        else:
            if data is None:
                return cls()
            matrix = np.frombuffer(data, np.int32)
            a, b, c, d = (float(matrix[k]) for k in (0, 1, 3, 4))
        degrees = round(np.degrees(np.arctan2(b, a)) / 90) * 90 % 360
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, b < 0, c < 0, degrees)
        return cls(False, d < 0, a < 0, degrees)

    def turned(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) shown of a picture stored as (height, width)."""
        return size[::-1] if self.transposed else size

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A turned view of an image (H, W, 3) or of one of its planes (H, W)."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
