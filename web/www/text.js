// A small text to learn: a few facts, repeated in varying order.

const ANIMALS = [
  ["dog", "woof", "in the yard", "bones"], ["cat", "meow", "on the roof", "fish"], ["cow", "moo", "in the meadow", "grass"],
  ["duck", "quack", "on the pond", "bread"], ["frog", "ribbit", "by the pond", "flies"], ["owl", "hoot", "in the oak", "mice"],
];
const SAYINGS = [
  ([name, sound]) => `What does the ${name} say? The ${name} says ${sound}.`,
  ([name, , place]) => `Where is the ${name}? The ${name} lives ${place}.`,
  ([name, , , food]) => `What does the ${name} eat? The ${name} eats ${food}.`,
  ([name, sound, place]) => `The ${name} lives ${place} and says ${sound}.`,
];

export function smallText() {
  const lines = [];
  for (let i = 0; i < 240; i += 1) lines.push(SAYINGS[i * 7 % 11 % SAYINGS.length](ANIMALS[i * 5 % 13 % ANIMALS.length]));
  return `${lines.join("\n")}\n`;
}
