// A fetch for producers: the same request once more, until it is known what became of it.
export const repeating = (fetch) => async (target, options) => {
  for (let attempt = 0; ; attempt++) {
    try {
      const response = await fetch(target, options);
      if (response.status !== 503 || attempt === 20) return response;
    } catch (error) {
      if (options.signal?.aborted || attempt === 20) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50 * (1 + Math.random())));
  }
};
