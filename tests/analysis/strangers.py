"""Networks and data as users bring them, each by a name of its own."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

X = torch.linspace(-1, 1, 24).reshape(8, 3)
Y = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])


def net(outputs=2):
    torch.manual_seed(3)
    return nn.Linear(3, outputs)


def one():
    return net(1)


def flat():
    return nn.Sequential(net(1), nn.Flatten(0))


class Recurrent(nn.Module):
    def __init__(self, **made):
        super().__init__()
        self.net, self.made = net(), made

    def forward(self, x):
        state = torch.zeros(len(x), 2, **self.made)
        return torch.cat((self.net(x)[..., None], state[..., None]), -1).sum(-1)


class Cell(nn.Module):
    def __init__(self, **made):
        super().__init__()
        self.cell, self.made = nn.RNNCell(3, 2), made

    def forward(self, x):
        return self.cell(x, torch.zeros(len(x), 2, **self.made))


def stubborn():
    return Cell(dtype=torch.float32)


def images():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def classes():
    return [(X, Y)]


def pair():
    return X, Y


def two_rows():
    return X[:2], Y[:2]


def data_set():
    return TensorDataset(X, Y)


class Singles(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, k):
        return X[k], int(Y[k])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


def loader():
    return DataLoader(Singles(), batch_size=3)


def shuffled():
    return DataLoader(Singles(), batch_size=1, shuffle=True, generator=torch.Generator())


def shuffled_by_torch():
    return DataLoader(Singles(), batch_size=1, shuffle=True)


def generator():
    return ((X[k : k + 3], Y[k : k + 3]) for k in (0, 3, 6))


def column():
    return [(X, Y[:, None])]


def int32():
    return [(X, Y.int())]


def uint8():
    return [(X, Y.byte())]


def boolean():
    return [(X, Y.bool())]


def one_hot():
    return [(X, torch.nn.functional.one_hot(Y))]


def one_hot_bool():
    return [(X, torch.nn.functional.one_hot(Y).bool())]


def half():
    return [(X.half(), Y)]


def one_hot_float():
    return [(X, torch.nn.functional.one_hot(Y).float())]


def numbers():
    return [(X, X.sum(1))]


def counts():
    return [(X, torch.full((8, 2), 3))]


def labels():
    return [(X, torch.stack([Y, 1 - Y * Y.flip(0)], 1))]


def true_labels():
    return [(X, labels()[0][1].bool())]


def language():
    torch.manual_seed(3)
    return nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 5))


IDS = torch.arange(24).reshape(8, 3) % 6


def tokens():
    return [(IDS, IDS % 5)]


def partly():
    kept = torch.where((IDS + torch.arange(8)[:, None]) % 3 == 0, -100, IDS % 5)
    kept[7] = -100
    return [(IDS, kept)]


def ignoring():
    return [(X, torch.where(X[:, 0] > 0.5, -100, Y))]


def nothing():
    return [(X, torch.full((8,), -100))]


def square():
    return [(torch.zeros(8, 5, dtype=torch.int64), torch.zeros(8, 5, dtype=torch.int64))]


def unequal():
    return [(IDS, IDS % 5), (IDS[:, :2], IDS[:, :2] % 5)]


def float_classes():
    return [(X, Y.float())]


def negative():
    return [(X, Y - 100)]


def complex_numbers():
    return [(X, Y * 1j)]


def texts():
    return [(X, ["a"] * 8)]


def arrays():
    return [(X.numpy(), Y.numpy())]


def shorter():
    return [(X, Y[:6])]


def longer():
    return [(X[:5], Y)]


def unequal_inputs():
    return [((X, X[:4]), Y)]


def later():
    return [(X, Y), (X, Y[:7])]


def three():
    return [(X, Y, Y)]


def mapping():
    return {"x": X, "y": Y}


def scalar():
    return [(X, torch.tensor(1))]


def unequal_shapes():
    return [(X, Y), (X[:, :2], Y)]


def breaks():
    yield X, Y
    raise KeyError("lost")


def bytes_of_images():
    return [(torch.ones(8, 1, 2, 2, dtype=torch.uint8), Y)]


def words():
    return [(torch.zeros(8, 5, 3), torch.zeros(8, 4, dtype=torch.int64))]
