"""Types that users get from the public names: mypy reads snippets as they would write them."""

from pathlib import Path

import pytest

SNIPPETS = {
    "model": """
import torch
from torch import Tensor
from videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

x, mask = torch.randn(1, 16, 3, 224, 224), torch.ones(1, 1568, dtype=torch.bool)
classifier = VideoMAEForVideoClassification.from_pretrained("videomae-base")
logits: Tensor = classifier(pixel_values=x).logits
loss: Tensor | None = classifier(x, labels=torch.tensor([3])).loss
values: tuple[Tensor, ...] = classifier(x, return_dict=False)
error: Tensor = VideoMAEForPreTraining.from_pretrained("videomae-base")(x, mask).loss
tokens: Tensor = VideoMAEModel.from_pretrained("videomae-base")(x, return_dict=True)[0]
classifier(x).tokens  # E: "ImageClassifierOutput" has no attribute "tokens"
classifier(x, labels="walk")  # E: No overload variant of "__call__" of "Forward" matches
""",
    "answers": """
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type
import numpy as np
from videomae import classify, embed, reconstruct
from videomae.inference.predict import Classification, Embedding
from videomae.inference.reconstruct import Reconstruction
from videomae.video.reader import BadVideo

paths = [Path("a.mp4"), Path("b.mp4")]
assert_type(classify("a.mp4"), Classification)
assert_type(classify(np.zeros((16, 48, 64, 3), np.uint8), top_k=1), Classification)
assert_type(classify(paths, num_clips=5, on_error="raise"), list[Classification])
assert_type(classify(path for path in paths), Iterator[Classification])
assert_type(classify("a.mp4", on_error="skip"), Classification | BadVideo)
assert_type(classify(tuple(paths), on_error="skip"), list[Classification | BadVideo])
assert_type(classify(iter(paths), on_error="skip"), Iterator[Classification | BadVideo])
assert_type(embed(paths, features="tokens", tell=print)[0], Embedding)
assert_type(reconstruct("a.mp4", mask="tube", seed=3), Reconstruction)
classify(paths, on_error="skip")[0].labels  # E: Item "BadVideo" of "Classification | BadVideo"
classify("a.mp4", topk=3)  # E: No overload variant of "__call__" of "OverVideos" matches
embed("a.mp4", features="mean")  # E: No overload variant of "__call__" of "OverVideos" matches
classify({"a.mp4"})  # E: No overload variant of "__call__" of "OverVideos" matches
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SNIPPETS)
def test_users_get_types(name: str, tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    snippet = tmp_path / f"{name}.py"
    snippet.write_text(SNIPPETS[name])
    report, trouble, _ = api.run(["--strict", str(snippet)])
    assert not trouble
    found = {int(line.split(":")[1]): line for line in report.splitlines() if ": error: " in line}
    expected = {
        number: line.split("# E: ")[1]
        for number, line in enumerate(SNIPPETS[name].splitlines(), 1)
        if "# E: " in line
    }
    assert found.keys() == expected.keys(), report
    assert all(message in found[number] for number, message in expected.items()), report
