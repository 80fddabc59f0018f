"""As much of the library verifiers (its form before 0.4) as the player of ours asks for; by hand, for its tests."""
