"""How a spec becomes a result: data, recipes, augmentation, steps, the trainer."""
