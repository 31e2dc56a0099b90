"""The one-time training that made the shipped weights; nobody needs it to use them."""
