"""Building blocks of the recurrent models, each the home of a few equations of the papers."""
