"""Published weights of other projects -> networks of this one, strictly."""
