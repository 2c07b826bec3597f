"""Views: random parameters are drawn per image, then applied to the whole batch at once."""
