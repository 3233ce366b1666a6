"""How channels compute: weights between them, edges, places, hierarchy."""
