"""A trained model in the formats that other programs run, and how near each is to the model that was trained."""
