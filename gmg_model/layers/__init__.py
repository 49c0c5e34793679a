"""Building blocks of the recurrent models; each module names the equations that it computes."""
