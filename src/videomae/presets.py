"""The sizes of models that have a name. Pure."""


def _sizes(
    encoder: tuple[int, int, int], decoder: tuple[int, int, int], **others: int
) -> dict[str, int]:
    """Fields by (width, depth, heads) of encoder and decoder; an MLP is four times as wide."""
    fields = {}
    for part, (width, depth, heads) in (("", encoder), ("decoder_", decoder)):
        fields[f"{part}hidden_size"] = width
        fields[f"{part}num_hidden_layers"] = depth
        fields[f"{part}num_attention_heads"] = heads
        fields[f"{part}intermediate_size"] = 4 * width
    return fields | others


# The published models (papers and scripts of V1 and V2), and two of ours in front: `micro`, of
# which two CPU cores can train a hundred in a night, on a grid of 6 x 6 cells, and `tiny`, which
# they can train in minutes.
PRESETS: dict[str, dict[str, int]] = {
    "micro": _sizes((96, 4, 3), (64, 2, 2), image_size=48, patch_size=8, frame_stride=2),
    "tiny": _sizes((128, 6, 4), (64, 2, 2), image_size=32, patch_size=8, frame_stride=2),
    "small": _sizes((384, 12, 6), (192, 4, 3)),
    "base": _sizes((768, 12, 12), (384, 4, 6)),
    "large": _sizes((1024, 24, 16), (512, 12, 8)),
    "huge": _sizes((1280, 32, 16), (640, 12, 8)),
    "giant": _sizes((1408, 40, 16), (512, 4, 8), patch_size=14, intermediate_size=6144),
}
