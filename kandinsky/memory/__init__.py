"""Where weights live while others work, and which way fits."""
