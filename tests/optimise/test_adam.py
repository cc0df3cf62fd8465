import torch

from hoarfrost.optimise.adam import Adam, cosine_decay


def test_steps_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    start = {"a": torch.randn(5, generator=generator), "b": torch.randn(2, 3, generator=generator)}
    rates = {"a": 0.1, "b": 0.02}
    theirs = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.Adam(
        [{"params": [value], "lr": rates[name]} for name, value in theirs.items()], betas=(0.9, 0.99), eps=1e-15
    )
    adam = Adam(rates)
    ours, moments = start, adam.begin(start)
    for count in range(7):
        gradients = {name: torch.randn(value.shape, generator=generator) for name, value in start.items()}
        for name, value in theirs.items():
            value.grad = gradients[name]
        optimiser.step()
        ours, moments = adam.step(ours, gradients, moments, count, 1.0)
    for name in start:
        torch.testing.assert_close(ours[name], theirs[name].detach())


def test_the_rate_falls_from_one_to_its_last():
    values = [cosine_decay(i / 10, 0.05) for i in range(11)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.0
    assert abs(values[-1] - 0.05) < 1e-12
