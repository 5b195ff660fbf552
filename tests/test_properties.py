"""What holds for all inputs, tried with drawn ones: the same in each run (see conftest.py)."""

import json
import random
import struct
import tarfile
from io import BytesIO
from itertools import accumulate, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from videomae.config import Grid, VideoMAEConfig
from videomae.data.folders import read_folders
from videomae.data.lists import Line, named, split_line, understood
from videomae.data.manifest import Video, Videos, read_manifest, write_manifest
from videomae.data.shards import list_shard
from videomae.errors import ConfigError, VideoError, as_text, one_line, to_json
from videomae.masking import choose_tokens, frame_mask, random_mask, running_cell_mask, tube_mask
from videomae.positions import grid_positions, sincos_positions
from videomae.processing import sampling
from videomae.recipe import load_recipe, write_recipe
from videomae.settings import FinetuneSettings, PretrainSettings
from videomae.tubelets import patchify, pick_tubelets, unpatchify
from videomae.video.container import VideoBytes
from videomae.video.limits import VideoLimits
from videomae.video.orientation import Orientation

counts = st.integers(1, 40)
lengths = st.integers(1, 3000)
strides = st.integers(1, 30)
sizes = st.integers(1, 7)
grids = st.builds(Grid, sizes, sizes, sizes)
ratios = st.floats(0.01, 0.99)
# Names as a file system has them: bytes that are no UTF-8, blanks, line ends, signs of other uses.
characters = st.characters(exclude_characters="\0/", exclude_categories=["Cs"])
names = st.text(characters | st.sampled_from(' ,"|#\n\r\t\x1c\u2028\udce9'), min_size=1, max_size=9)
words = names.filter(lambda text: text.isprintable() and text.strip(" .") == text)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all drawn cases write to, one after the other."""
    return tmp_path_factory.mktemp("drawn")


# Samplers


@given(lengths, counts, strides)
def test_a_clip_is_centred_and_keeps_its_stride(length: int, count: int, stride: int) -> None:
    indices = sampling.clip_indices(length, num_frames=count, frame_stride=stride)
    assert len(indices) == count
    for before, after in pairwise(indices):
        assert after - before == stride or after == length - 1
    if sampling.clip_span(count, stride) <= length:
        assert indices[-1] - indices[0] + 1 == sampling.clip_span(count, stride)
        assert length - 1 - indices[-1] - indices[0] in (0, 1)
    else:
        assert indices[0] == 0


@given(lengths, counts, strides, st.integers(0, 2**32))
def test_a_drawn_clip_lies_inside_and_reaches_both_ends(
    length: int, count: int, stride: int, seed: int
) -> None:
    generator = random.Random(seed)
    start = sampling.random_start(
        length, num_frames=count, frame_stride=stride, generator=generator
    )
    last = max(0, length - sampling.clip_span(count, stride))
    assert 0 <= start <= last
    if 0 < last < 5:
        draws = {
            sampling.random_start(
                length, num_frames=count, frame_stride=stride, generator=generator
            )
            for _ in range(200)
        }
        assert draws == set(range(last + 1))


@given(lengths, counts, st.floats(0, 1, exclude_max=True), st.integers(0, 2**32))
def test_each_part_of_a_video_gives_one_frame_of_its_own(
    length: int, count: int, offset: float, seed: int
) -> None:
    drawn = sampling.random_uniform_indices(length, num_frames=count, generator=random.Random(seed))
    for indices in (sampling.uniform_indices(length, num_frames=count, offset=offset), drawn):
        assert len(indices) == count
        for part, index in enumerate(indices):
            assert length * part // count <= index <= length * (part + 1) / count
            assert index < length


@given(lengths, st.data())
def test_even_frames_begin_with_the_first_and_lie_evenly(length: int, data: Any) -> None:
    count = data.draw(st.integers(1, length))
    indices = sampling.even_indices(length, num_frames=count)
    assert indices[0] == 0
    assert indices[-1] < length
    gaps = [after - before for before, after in pairwise([*indices, length])]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


@given(lengths, counts, strides, st.integers(1, 8))
def test_clips_are_spread_from_the_first_frame_to_the_last(
    length: int, count: int, stride: int, num_clips: int
) -> None:
    dense = sampling.spread_clips(
        length, num_frames=count, frame_stride=stride, num_clips=num_clips
    )
    starts = [clip[0] for clip in dense]
    assert starts == sorted(starts)
    if num_clips > 1 and length >= sampling.clip_span(count, stride):
        assert dense[0][0] == 0
        assert dense[-1][-1] == length - 1
        gaps = [after - before for before, after in pairwise(starts)]
        assert max(gaps) - min(gaps) <= 1
    whole = sampling.spread_clips(length, num_frames=count, frame_stride=None, num_clips=num_clips)
    in_turn = [index for slot in zip(*whole, strict=True) for index in slot]
    assert in_turn == sorted(in_turn)
    if length >= count * num_clips:
        assert len(set(in_turn)) == count * num_clips


@given(
    st.lists(st.integers(1, 500), min_size=0, max_size=40),  # from one frame to the next, in ms
    st.floats(0.5, 120),
)
def test_frames_at_a_rate_are_those_nearest_to_its_ticks(gaps: list[int], fps: float) -> None:
    milliseconds = np.cumsum([70, *gaps])
    times = (milliseconds / 1000).tolist()
    indices = sampling.frames_at_rate(len(times), fps=fps, video_fps=25, times=times)
    shown = [time - times[0] for time in times]
    for tick, index in enumerate(indices):
        nearest = min(abs(time - tick / fps) for time in shown)
        assert abs(shown[index] - tick / fps) <= nearest + 3e-6
    assert abs(len(indices) - 1 - shown[-1] * fps) <= 1


@given(lengths, st.floats(0.5, 240))
def test_a_video_at_its_own_rate_is_itself(length: int, fps: float) -> None:
    assert sampling.frames_at_rate(length, fps=fps, video_fps=fps) == list(range(length))


@given(st.integers(1, 60), st.integers(1, 60), counts, counts, st.integers(1, 6))
def test_crops_lie_inside_and_reach_both_ends_of_the_longer_side(
    crop_height: int, crop_width: int, more_rows: int, more_columns: int, num_crops: int
) -> None:
    height, width = crop_height + more_rows, crop_width + more_columns
    boxes = sampling.crop_boxes(height, width, size=(crop_height, crop_width), num_crops=num_crops)
    assert len(boxes) == num_crops
    for top, left, *size in boxes:
        assert size == [crop_height, crop_width]
        assert 0 <= top <= more_rows
        assert 0 <= left <= more_columns
    along, across = (0, 1) if more_rows > more_columns else (1, 0)
    free = (more_rows, more_columns)
    assert {box[across] for box in boxes} == {free[across] // 2}
    if num_crops > 1:
        assert (boxes[0][along], boxes[-1][along]) == (0, free[along])


# Masks and tubelets


@given(grids, ratios, st.integers(1, 3), st.integers(0, 2**32))
def test_masks_hide_the_same_number_everywhere(
    grid: Grid, ratio: float, batch: int, seed: int
) -> None:
    options: dict[str, Any] = {
        "batch_size": batch,
        "generator": torch.Generator().manual_seed(seed),
    }
    makers = (tube_mask, grid.num_cells), (random_mask, grid.num_tokens), (frame_mask, grid.frames)
    for make, num_places in makers:
        if int(ratio * num_places) == 0:
            with pytest.raises(ConfigError, match="hides none"):
                make(grid, ratio, **options)
            continue
        mask = make(grid, ratio, **options)
        assert mask.shape == (batch, grid.num_tokens)
        num_hidden = int(ratio * num_places) * grid.num_tokens // num_places
        assert mask.sum(1).tolist() == [num_hidden] * batch
        cells = mask.view(batch, grid.frames, -1)
        if make is tube_mask:
            assert torch.equal(cells, cells[:, :1].expand_as(cells))
        if make is frame_mask:
            assert torch.equal(cells, cells[..., :1].expand_as(cells))
        chosen = choose_tokens(mask, grid.num_tokens)
        both = torch.cat([chosen.visible, chosen.predicted], 1)
        assert torch.equal(both.sort(1).values[0], torch.arange(grid.num_tokens))
        assert mask.gather(1, chosen.predicted).all()
        assert not mask.gather(1, chosen.visible).any()


@given(grids, st.floats(0.25, 0.99), st.integers(0, 2**32))
def test_running_cells_hide_the_same_share_of_every_cell(
    grid: Grid, ratio: float, seed: int
) -> None:
    whole = Grid(grid.frames, 2 * grid.height, 2 * grid.width)
    mask = running_cell_mask(whole, ratio, generator=torch.Generator().manual_seed(seed))
    cells = mask.view(grid.frames, grid.height, 2, grid.width, 2)
    assert (cells.sum((2, 4)) == int(4 * ratio)).all()
    turned = cells.permute(0, 1, 3, 2, 4).flatten(3)  # (f, h, w, 4), places row by row
    for before, after in pairwise(turned):
        assert torch.equal(after, before.roll(-1, dims=-1))


@given(grids, st.tuples(sizes, sizes, sizes), st.integers(1, 4), st.integers(0, 2**32))
def test_clips_come_back_from_their_tubelets(
    grid: Grid, cell: tuple[int, int, int], channels: int, seed: int
) -> None:
    t, p, q = cell
    assume(grid.num_tokens * t * p * q < 20_000)
    shape = (2, grid.frames * t, channels, grid.height * p, grid.width * q)
    clips = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(unpatchify(patchify(clips, grid), grid, t, (p, q)), clips)
    index = torch.randperm(grid.num_tokens)[None, :3].expand(2, -1)
    some = pick_tubelets(clips, grid, index)
    assert torch.equal(some, pick_tubelets(clips, grid)[:, index[0]])


@given(grids, st.integers(1, 12).map(lambda half: 2 * half))
def test_positions_are_pairs_of_sine_and_cosine_of_one_angle(grid: Grid, dim: int) -> None:
    table = sincos_positions(grid.num_tokens, dim)
    pairs = table.view(-1, dim // 2, 2)
    assert torch.allclose(pairs.square().sum(-1), torch.ones(()))
    assert torch.equal(grid_positions(grid, grid, dim), table)
    angles = torch.atan2(pairs[..., 0], pairs[..., 1]).double()
    numbers = torch.arange(grid.num_tokens)[:, None]
    expected = numbers / 10000 ** (torch.arange(dim // 2) * 2 / dim).double()
    assert torch.allclose((angles - expected).cos(), torch.ones((), dtype=torch.float64))


@given(grids, grids)
def test_resized_positions_stay_within_those_of_the_trained_grid(grid: Grid, other: Grid) -> None:
    table = grid_positions(grid, other, 8)
    assert table.shape == (grid.num_tokens, 8)
    trained = sincos_positions(other.num_tokens, 8)
    assert (table <= trained.max(0).values + 1e-5).all()
    assert (table >= trained.min(0).values - 1e-5).all()


# Lists, manifests, recipes, configs: what is written reads back


@given(words, st.lists(st.integers(-1, 10**9), max_size=4), st.sampled_from(["::", "\t", None]))
def test_a_line_reads_back(path: str, numbers: list[int], delimiter: str | None) -> None:
    quoted = '"{}"'.format(path.replace('"', '""'))
    gap = delimiter or " "
    line = split_line(gap.join([quoted, *map(str, numbers)]), delimiter=delimiter)
    assert line == Line(path, tuple(numbers))


@given(st.text(max_size=40), st.sampled_from(["::", "\t", ",", None]))
def test_any_line_is_taken_apart_without_loss(text: str, delimiter: str | None) -> None:
    line = split_line(text, delimiter=delimiter)
    assert len(line.path) + len(line.words) <= len(text.strip())
    assert all(str(abs(number)) in text for number in line.numbers)


@given(st.lists(st.tuples(words, st.integers(0, 50)), min_size=1, max_size=8))
def test_class_numbers_keep_their_places(rows: list[tuple[str, int]]) -> None:
    lines = [Line(f"{path}.mp4", (number,)) for path, number in rows]
    items, classes = named(understood(lines, "v1"))
    assert [classes.index(item.label) for item in items] == [number for _, number in rows]
    assert [item.path for item in items] == [f"{path}.mp4" for path, _ in rows]


# A line end in these is taken for a quote that was left open.
texts_of_a_line = names.map(as_text).filter(lambda text: not {"\n", "\r"} & {*text})
seconds = st.none() | st.floats(0, 1e6)
whole = st.none() | st.integers(0, 2**40)
rows = st.builds(
    Video,
    path=names.map("/data/{}.mp4".format),
    label=texts_of_a_line,
    split=st.sampled_from(["train", "val", "test"]),
    start_seconds=seconds,
    end_seconds=seconds,
    first_frame=whole,
    num_frames=whole,
    offset=whole,
    num_bytes=whole,
    group=texts_of_a_line,
)


@given(st.lists(rows, min_size=1, max_size=5), st.lists(words, unique=True, max_size=5))
def test_a_manifest_reads_back(folder: Path, items: list[Video], classes: list[str]) -> None:
    videos = Videos(tuple(items), tuple(classes))
    assert read_manifest(write_manifest(folder, videos)) == videos


@given(
    st.builds(
        FinetuneSettings,
        data=names.filter(str.isprintable).map(Path),
        lr=st.floats(1e-9, 10),
        epochs=st.integers(1, 1000),
        crop_area=st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)),
        mixup_alpha=st.floats(0, 5),
        fps=st.none() | st.floats(0.01, 1000),
        frame_stride=st.integers(1, 50) | st.just("uniform"),
        problem=st.sampled_from(["single_label", "multi_label"]),
    )
    | st.builds(
        PretrainSettings,
        mask=st.sampled_from(["tube", "random", "frame", "running_cell", "auto"]),
        mask_ratio=st.floats(0, 0.99),
        decoder_depth=st.none() | st.integers(1, 12),
    )
)
def test_a_recipe_reads_back(folder: Path, settings: FinetuneSettings | PretrainSettings) -> None:
    write_recipe(settings, folder / "settings.toml")
    assert load_recipe(folder / "settings.toml", type(settings)) == settings


@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.tuples(sizes, sizes),
    st.lists(names, unique=True, min_size=1, max_size=5),
    st.floats(0, 0.9),
)
def test_a_config_reads_back(
    heads: int, per_head: int, patches: tuple[int, int], labels: list[str], rate: float
) -> None:
    config = VideoMAEConfig(
        hidden_size=2 * heads * per_head,
        num_attention_heads=heads,
        image_size=(16 * patches[0], 16 * patches[1]),
        id2label=dict(enumerate(labels)),
        hidden_dropout_prob=rate,
    )
    again = VideoMAEConfig.from_dict(json.loads(config.to_json_string()))
    assert again.to_dict() == config.to_dict()
    assert again.id2label == config.id2label
    assert again.grid == Grid(8, *patches)


@given(st.lists(st.tuples(words, st.booleans()), unique_by=lambda pair: pair[0], min_size=1))
def test_a_pattern_says_what_folders_are(names: list[tuple[str, bool]]) -> None:
    splits = {True: "train", False: "test"}
    places = [Path(splits[is_train], name, "x.mp4") for name, is_train in names]
    found = read_folders(places, "split/class")
    assert [(place.split, place.label) for place in found] == [
        (splits[is_train], as_text(name)) for name, is_train in names
    ]


@given(
    st.lists(
        st.tuples(words.filter(lambda word: "." not in word), st.binary(max_size=40)),
        unique_by=lambda pair: pair[0],
        max_size=5,
    )
)
def test_a_shard_names_where_its_videos_lie(folder: Path, members: list[tuple[str, bytes]]) -> None:
    path = folder / "x.tar"
    with tarfile.open(path, "w") as tar:
        for number, (name, content) in enumerate(members):
            for suffix, data in ((".mp4", content), (".cls", b"%d" % number)):
                member = tarfile.TarInfo(name + suffix)
                member.size = len(data)
                tar.addfile(member, BytesIO(data))
    data = path.read_bytes()
    found = list_shard(path)
    assert [item.label for item in found] == [str(number) for number in range(len(members))]
    for item, (_, content) in zip(found, members, strict=True):
        assert item.offset is not None
        assert item.num_bytes is not None
        assert data[item.offset : item.offset + item.num_bytes] == content


# Text that leaves the program

texts = st.text(st.characters() | st.sampled_from("\udce9\x1b\u202e"), max_size=30)


@given(texts)
def test_names_in_messages_are_one_line_that_moves_no_cursor(text: str) -> None:
    line = one_line(text)
    line.encode()  # holds no half of a character
    assert len(line.splitlines()) <= 1
    assert not any(ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0 for sign in line)
    assert one_line(line) == line


@given(
    st.recursive(
        st.none() | st.integers() | texts,
        lambda it: st.lists(it) | st.dictionaries(texts, it),
        max_leaves=6,
    )
)
def test_json_of_anything_reads_back(value: Any) -> None:
    text = to_json(value)
    text.encode()
    if as_text(text) == text and "\\x" not in text:
        assert json.loads(text) == value


# Pictures and boxes

turns = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]
mirrored = [(-1, 0, 0, 1), (0, 1, 1, 0), (1, 0, 0, -1), (0, -1, -1, 0)]


def frame_with(matrix: list[int]) -> Any:
    return SimpleNamespace(side_data={"DISPLAYMATRIX": struct.pack("=9i", *matrix)})


@given(st.sampled_from(turns + mirrored), sizes, sizes)
def test_a_picture_is_turned_as_its_matrix_says(
    matrix: tuple[int, int, int, int], height: int, width: int
) -> None:
    a, b, c, d = matrix
    full = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    orientation = Orientation.of(frame_with(full))
    image = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    shown = orientation.apply(image)
    assert shown.shape == orientation.turned((height, width))
    # x' = a x + c y, y' = b x + d y, moved so that both begin at 0
    xs = {(x, y): a * x + c * y for y in range(height) for x in range(width)}
    ys = {(x, y): b * x + d * y for y in range(height) for x in range(width)}
    for (x, y), place in xs.items():
        assert shown[ys[x, y] - min(ys.values()), place - min(xs.values())] == image[y, x]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=9, max_size=9))
def test_any_matrix_is_some_turn(matrix: list[int]) -> None:
    orientation = Orientation.of(frame_with(matrix))
    assert orientation.rotation_degrees in (0, 90, 180, 270)


def box(kind: bytes, data: bytes, *, is_long: bool = False) -> bytes:
    if is_long:
        return struct.pack(">I4sQ", 1, kind, len(data) + 16) + data
    return struct.pack(">I4s", len(data) + 8, kind) + data


boxes = st.lists(
    st.tuples(
        st.sampled_from([b"free", b"moov", b"mdat", b"uuid", b"wide"]),
        st.binary(max_size=30),
        st.booleans(),
    )
)


@given(boxes)
def test_boxes_are_found_as_they_were_written(written: list[tuple[bytes, bytes, bool]]) -> None:
    parts = [box(kind, data, is_long=is_long) for kind, data, is_long in written]
    file = VideoBytes(Path("x.mp4"), VideoLimits(), b"".join(parts))
    starts = [0, *accumulate(map(len, parts))]
    kinds = [kind for kind, *_ in written]
    assert list(file._boxes()) == list(zip(kinds, starts, map(len, parts), strict=False))


@given(st.integers(0, 2**32 - 1), st.integers(0, 200), st.integers(0, 100))
def test_an_index_holds_no_more_samples_than_its_file(
    num_samples: int, num_bytes: int, room: int
) -> None:
    index = box(b"stsz", struct.pack(">III", 0, num_bytes, num_samples))
    data = box(b"moov", index) + box(b"mdat", bytes(room))
    file = VideoBytes(Path("x.mp4"), VideoLimits(), data)
    if num_samples * max(1, num_bytes) > 2 * len(data):
        with pytest.raises(VideoError, match=f"its index promises {num_samples:,} samples"):
            file.check_index()
    else:
        file.check_index()
