"""Training. Which one should I use? `from_config.train` with a configuration from `config.load_config`; the rest serves it."""
