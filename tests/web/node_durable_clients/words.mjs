// What stands for a model: "40 words, 20 ms".
export async function* wordsOf(prompt) {
  const [count, pause] = prompt.split(",").map((part) => parseInt(part));
  for (let number = 0; number < count; number++) {
    yield `word-${number} `;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

export const textOf = (parts, of) => parts.filter((part) => part.type === "text").map(of).join("");
