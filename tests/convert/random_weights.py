"""Random weights for a T5 of transformers, at scales at which its outputs depend on its inputs."""


def randomize(model, head_dim: int, *, tied: bool, seed: int) -> None:
    """Every weight, norms and position bias too, in place. transformers 5 ties the logits of every
    model that it builds itself: an untied one gets logits of its own."""
    import torch  # tests are collected where it is not installed

    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.empty(*model.shared.weight.shape))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, x in model.named_parameters():
            x.normal_(generator=generator)
            if "layer_norm" in name:
                x.mul_(0.3).add_(1.0)
            elif name.endswith(".q.weight"):
                x.mul_((x.shape[1] * head_dim) ** -0.5)
            elif "shared" not in name and "relative" not in name:
                x.mul_(x.shape[1] ** -0.5)
