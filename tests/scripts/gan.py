"""A GAN: two models, two optimizers, spectral norm, one-sided training of either."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as criterion
from torch.nn.utils.parametrizations import spectral_norm

torch.manual_seed(4)
generator = nn.Sequential(
    nn.ConvTranspose2d(3, 4, 3, bias=False),
    nn.BatchNorm2d(4),
    nn.ReLU(True),
    nn.ConvTranspose2d(4, 1, 4, 2, 1),
    nn.Tanh(),
)
discriminator = nn.Sequential(
    spectral_norm(nn.Conv2d(1, 4, 3, 2, 1)),
    nn.LeakyReLU(0.2, inplace=True),
    nn.Flatten(),
    nn.Linear(36, 1),
)
for_g = torch.optim.Adam(generator.parameters(), 0.002, (0.5, 0.99))
for_d = torch.optim.Adam(discriminator.parameters(), 0.002, (0.5, 0.99))
ones, zeros = torch.ones(2, 1), torch.zeros(2, 1)

for step in range(3):
    fake = generator(torch.randn(2, 3, 1, 1))

    for_d.zero_grad()
    loss_d = criterion(discriminator(torch.randn(2, 1, 6, 6)), ones)
    loss_d.backward()
    criterion(discriminator(fake.detach()), zeros).backward()
    for_d.step()

    for_g.zero_grad()
    loss_g = criterion(discriminator(fake), ones)
    loss_g.backward()
    for_g.step()
    print(step, loss_d.item(), loss_g.item())

print(fingerprint(generator, discriminator))
