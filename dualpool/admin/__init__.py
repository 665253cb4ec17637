"""Looking and steering: the console's commands once for all protocols, what they tell, and HTTP."""
