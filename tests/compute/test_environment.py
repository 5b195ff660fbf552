import torch

from videomae.compute.environment import environment


def test_facts_are_those_of_torch_and_name_no_absent_package() -> None:
    facts = environment()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "decord" not in facts
    assert all(isinstance(name, str) and value is not None for name, value in facts.items())
