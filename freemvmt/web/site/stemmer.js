// English stems: Snowball's "english" (Porter 2) of version 3, as published at snowballstem.org.
//
// Words are lower-case letters and digits; apostrophes do not occur.

const SPECIAL = {
  skis: "ski", skies: "sky", idly: "idl", gently: "gentl", ugly: "ugli", early: "earli", only: "onli", singly: "singl",
  sky: "sky", news: "news", howe: "howe", atlas: "atlas", cosmos: "cosmos", bias: "bias", andes: "andes",
};
const WHOLE = /^(gener|commun|arsen|past|univers|later|emerg|organ|inter)/; // no ending reaches into these
const STAYS = /^(inning|outing|canning|herring|earring|evening|(proc|exc|succ)eed(ly)?)$/;
const STEP_2 = {
  tional: "tion", enci: "ence", anci: "ance", abli: "able", entli: "ent", izer: "ize", ization: "ize",
  ational: "ate", ation: "ate", ator: "ate", alism: "al", aliti: "al", alli: "al", fulness: "ful", ousli: "ous",
  ousness: "ous", iveness: "ive", iviti: "ive", biliti: "ble", bli: "ble", ogi: "og", ogist: "og", fulli: "ful", lessli: "less",
  li: "",
};
const STEP_3 = {
  tional: "tion", ational: "ate", alize: "al", icate: "ic", iciti: "ic", ical: "ic", ful: "", ness: "", ative: "",
};
const STEP_4 = Object.fromEntries(
  "al ance ence er ic able ible ant ement ment ent ism ate iti ous ive ize ion".split(" ").map((ending) => [ending, ""]),
);
const LONGEST_ENDING = 7;

const isVowel = (letter) => letter !== undefined && "aeiouy".includes(letter);

/** The stem of a word. */
export function stem(word) {
  if (Object.hasOwn(SPECIAL, word)) return SPECIAL[word];
  if ([...word].length <= 2) return word;
  let found = markConsonants(word);
  const first = WHOLE.exec(found)?.[0].length ?? afterSyllable(found, 0);
  const inner = afterSyllable(found, first);
  found = step1c(step1b(step1a(found), first));
  found = step5(step4(step3(step2(found, first), first, inner), inner), first, inner);
  return found.replaceAll("Y", "y");
}

/** A y at the start or behind a vowel is a consonant: Y. */
function markConsonants(word) {
  const letters = word.split("");
  for (let place = 0; place < letters.length; place++) {
    if (letters[place] === "y" && (place === 0 || isVowel(letters[place - 1]))) letters[place] = "Y";
  }
  return letters.join("");
}

/** Where a region begins: behind the first consonant that follows a vowel, looked for from `start`. */
function afterSyllable(word, start) {
  let place = start;
  while (place < word.length && !isVowel(word[place])) place++;
  while (place < word.length && isVowel(word[place])) place++;
  return Math.min(place + 1, word.length);
}

const hasVowel = (text) => [...text].some(isVowel);

/** Whether `text` ends in a short syllable. */
function endsShort(text) {
  const [before, vowel, last] = [text.at(-3), text.at(-2), text.at(-1)];
  if (text.endsWith("past")) return true;
  if (text.length < 2 || isVowel(last) || !isVowel(vowel)) return false;
  return text.length === 2 || (!isVowel(before) && !"wxY".includes(last));
}

/** The longest of `endings` that `word` has, or nothing. */
function endingOf(word, endings) {
  for (let length = Math.min(LONGEST_ENDING, word.length); length > 0; length--) {
    const ending = word.slice(-length);
    if (Object.hasOwn(endings, ending)) return ending;
  }
  return undefined;
}

function step1a(word) {
  if (word.endsWith("sses")) return word.slice(0, -2);
  if (/ie[ds]$/.test(word)) return word.slice(0, word.length > 4 ? -2 : -1);
  if (/[us]s$/.test(word) || !word.endsWith("s")) return word;
  return hasVowel(word.slice(0, -2)) ? word.slice(0, -1) : word;
}

function step1b(word, region) {
  const ending = /(eedly|eed|ingly|edly|ing|ed)$/.exec(word)?.[0];
  if (!ending || STAYS.test(word)) return word;
  const base = word.slice(0, -ending.length);
  if (ending === "ing" && /^[^aeiouy]y$/.test(base)) return `${base[0]}ie`;
  if (ending.startsWith("eed")) return base.length >= region ? `${base}ee` : word;
  if (!hasVowel(base)) return word;
  if (/(at|bl|iz)$/.test(base)) return `${base}e`;
  if (/^[aeo](bb|dd|ff|gg|mm|nn|pp|rr|tt)$/.test(base)) return base;
  if (/(bb|dd|ff|gg|mm|nn|pp|rr|tt)$/.test(base)) return base.slice(0, -1);
  return base.length === region && endsShort(base) ? `${base}e` : base;
}

function step1c(word) {
  return /.[^aeiouy][yY]$/su.test(word) ? `${word.slice(0, -1)}i` : word;
}

function step2(word, region) {
  const ending = endingOf(word, STEP_2);
  if (!ending) return word;
  const base = word.slice(0, -ending.length);
  if (base.length < region) return word;
  if (ending === "ogi" && !base.endsWith("l")) return word;
  if (ending === "li" && !/[cdeghkmnrt]$/.test(base)) return word;
  return base + STEP_2[ending];
}

function step3(word, region, inner) {
  const ending = endingOf(word, STEP_3);
  if (!ending) return word;
  const base = word.slice(0, -ending.length);
  return base.length < (ending === "ative" ? inner : region) ? word : base + STEP_3[ending];
}

function step4(word, region) {
  const ending = endingOf(word, STEP_4);
  if (!ending) return word;
  const base = word.slice(0, -ending.length);
  return base.length < region || (ending === "ion" && !/[st]$/.test(base)) ? word : base;
}

function step5(word, region, inner) {
  const base = word.slice(0, -1);
  if (word.endsWith("e")) return base.length >= inner || (base.length >= region && !endsShort(base)) ? base : word;
  return word.endsWith("ll") && base.length >= inner ? base : word;
}
