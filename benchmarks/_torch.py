"""NAME ARGUMENT: what relaxjax is measured beside in PyTorch, in an interpreter of its own.

Prints its versions, then for every line of the standard input the seconds of one turn. A turn is

- of a law: forward + backward of the original's sampler, at so many entries;
- of demo: an epoch by the training loop of the original's demo as it stands (relaxit, demo/
  vae_straight_through_bernoulli.py), but that its images, those of a NumPy file, come from memory
  as MNIST's do there: PIL, then ToTensor;
- of memory: the same networks and method over tensors, without a loader or a number read back.
"""

import importlib.metadata
import sys
import time

import numpy as np
import torch
from PIL import Image
from relaxit.distributions import GaussianRelaxedBernoulli, HardConcrete, StraightThroughBernoulli
from torch import nn, optim
from torch.nn import functional as F
from torchvision import transforms

BATCH = 128
BETA, XI, GAMMA = torch.tensor([2 / 3, 1.1, -0.1]).split(1)
LAWS = {
    # A scalar scale would draw one number for the whole batch.
    "gates/gaussian": lambda x: GaussianRelaxedBernoulli(loc=x, scale=torch.full_like(x, 0.5)),
    "bernoulli/straight_through": lambda x: StraightThroughBernoulli(logits=x),
    "gates/hard_concrete": lambda x: HardConcrete(alpha=x, beta=BETA, xi=XI, gamma=GAMMA),
}


def sampler(name, entries):
    torch.manual_seed(0)
    x, g = torch.randn(2, int(entries)).unbind()
    if name == "gates/hard_concrete":
        x = x.exp()  # its alpha is positive
    x.requires_grad_()

    def turn():
        x.grad = None
        LAWS[name](x).rsample().backward(g)

    return turn


def networks():
    encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 20))
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    return encoder, decoder, optim.Adam(parameters, lr=1e-3)


def demo(images):
    class Images(torch.utils.data.Dataset):
        images_of, transform = 255 * images.view(-1, 28, 28), transforms.ToTensor()

        def __len__(self):
            return len(self.images_of)

        def __getitem__(self, i):
            return self.transform(Image.fromarray(self.images_of[i].numpy())), 0

    encoder, decoder, optimizer = networks()
    loader = torch.utils.data.DataLoader(Images(), batch_size=BATCH, shuffle=True)

    def loss_function(recon_x, x, probs, prior=0.5, eps=1e-10):
        BCE = F.binary_cross_entropy(recon_x, x.view(-1, 784), reduction="sum")
        t1 = probs * ((probs + eps) / prior).log()
        t2 = (1 - probs) * ((1 - probs + eps) / (1 - prior)).log()
        return BCE + torch.sum(t1 + t2, dim=-1).sum()

    def epoch():
        train_loss = 0
        for data, _ in loader:
            optimizer.zero_grad()
            q_z = StraightThroughBernoulli(logits=encoder(data.view(-1, 784)))
            probs = q_z.probs
            loss = loss_function(torch.sigmoid(decoder(q_z.rsample())), data, probs)
            loss.backward()
            train_loss += loss.item()
            optimizer.step()

    return epoch


def memory(images):
    encoder, decoder, optimizer = networks()
    x = images.float()

    def epoch():
        for index in torch.randperm(len(x))[: len(x) // BATCH * BATCH].view(-1, BATCH):
            data = x[index]
            optimizer.zero_grad(set_to_none=True)
            logits = encoder(data)
            probs = torch.sigmoid(logits)
            z = torch.bernoulli(probs).detach() + probs - probs.detach()
            loss = F.binary_cross_entropy_with_logits(decoder(z), data, reduction="sum")
            entropy = F.binary_cross_entropy_with_logits(logits, probs, reduction="sum")
            (loss - entropy).backward()  # KL to a fair coin, but for its constant
            optimizer.step()

    return epoch


if __name__ == "__main__":
    name, argument = sys.argv[1:]
    if name in LAWS:
        turn = sampler(name, argument)
    else:
        turn = {"demo": demo, "memory": memory}[name](torch.from_numpy(np.load(argument)))
    versions = torch.__version__, "relaxit", importlib.metadata.version("relaxit")
    print("torch", *versions, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        turn()
        print(time.perf_counter() - start, flush=True)
