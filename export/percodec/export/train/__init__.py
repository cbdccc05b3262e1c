"""Training. Which one should I use? `run.train` with a configuration from `config.load_config`; the rest serves it."""
