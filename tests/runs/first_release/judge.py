def good(prompt, response):
    return response.count("good") - 0.5 * response.count("bad") + 0.1 * len(response.split())
