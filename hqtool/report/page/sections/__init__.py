"""The page's sections: each makes of the material its HTML, its charts and their data."""
