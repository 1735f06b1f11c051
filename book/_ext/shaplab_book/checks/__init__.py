"""One module for each part of the book, one function for each exercise that asks for a function."""
