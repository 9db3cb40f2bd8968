"""A bidirectional LSTM over packed sequences of different lengths."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Projected(nn.Linear):
    """A linear layer that returns its result and the norm of it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = super().forward(x)
        return y, y.norm()


class Classifier(nn.Module):
    """Embed, recur, take the mean over the words, classify."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4, padding_idx=0)
        self.lstm = nn.LSTM(4, 3, num_layers=2, dropout=0.2, bidirectional=True, batch_first=True)
        self.project = Projected(6, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(
            self.embedding(words), lengths, batch_first=True, enforce_sorted=False
        )
        states, (hidden, _) = self.lstm(packed)
        padded, _ = pad_packed_sequence(states, batch_first=True)
        projected, norm = self.project(padded.sum(1) / lengths[:, None])
        return self.head(torch.tanh(projected)), norm + hidden.square().mean()


torch.manual_seed(3)
model = Classifier()
optimizer = torch.optim.RMSprop(model.parameters(), 0.01)
for step in range(3):
    lengths = torch.tensor([5, 2, 4])
    words = torch.randint(1, 9, (3, 5)) * (torch.arange(5) < lengths[:, None])
    logits, penalty = model(words, lengths)
    loss = nn.functional.cross_entropy(logits, words[:, 0] % 2) + 0.01 * penalty
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
print(fingerprint(model))
