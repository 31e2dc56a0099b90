"""Make preference pairs with the model that is to be aligned, judge, weigh and reword them."""
