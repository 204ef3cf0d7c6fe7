"""What a type checker refuses (test_types.py): an error in each of the marked lines, and in no other."""

from typing import assert_type

from kandinsky import get_T2V_pipeline

pipe = get_T2V_pipeline("cuda")
pipe(5)  # wrong
pipe("a cat", output_type="gif")  # wrong
pipe("a cat", time_length="12")  # wrong
pipe("a cat", colour="red")  # wrong
print(pipe("a cat", "cat.mp4").frames)  # wrong
print(pipe("a cat", output_type="np").path)  # wrong
assert_type(pipe("a cat", return_frames=True), int)  # wrong
pipe.model_set = None  # wrong
pipe.parts.progress = True  # wrong
get_T2V_pipeline()  # wrong
pipe("a cat", "cat.mp4").seed = 3  # wrong
