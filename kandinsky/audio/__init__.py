"""Video to sound: Kandinsky 4.0 V2A, with a pipeline of its own over the rooms that text to video uses."""
