"""A bundle's graphs in other precisions and as engines. Which one should I use? `build` makes them, `verify` judges a precision."""
