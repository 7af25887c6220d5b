"""Many runs: a grid of configurations, and the engines that run them."""
