"""Where frames come from: cameras, videos, pictures, the synthetic road; and how they are fitted to the network."""
