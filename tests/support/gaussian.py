"""One Gaussian number as the data: everything in closed form, by hand, from the values of alpha and sigma."""

import torch


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def gaussian_log_marginal(x, t, path, mean, std):
    """log p_t for data ~ N(mean, std^2), from the sum of two independent Gaussians, by hand."""
    variance = path.alpha(t) ** 2 * std**2 + path.sigma(t) ** 2
    return -0.5 * (x - path.alpha(t) * mean) ** 2 / variance - 0.5 * torch.log(2 * torch.pi * variance)


def conditional_mean_of_data(x, t, path, mean, std):
    """E[data | x_t = x] by the formula of two jointly Gaussian numbers."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)
