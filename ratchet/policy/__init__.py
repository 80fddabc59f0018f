"""The trained model: its shape, its decoder, its tokenizer and chat template, and the folder they are saved in."""
