"""TS-SAN: self-attention networks for skeleton actions (Cho et al., WACV 2020) in PyTorch."""
