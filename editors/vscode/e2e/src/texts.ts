// Beginnings of files that any model goes on with: by the time it is asked, it has read twice what comes next.

/** Goes on for several words of one line. */
export const LINE = `\
first = join_words(left, right, separator=", ", limit=100)
second = join_words(left, right, separator=", ", limit=100)
third = join_wor`;

/** Says nothing of how the others go on: what is open beside them is shown to the model too. */
export const APART = 'print("nothing of interest")\n';

/** Goes on for several lines, where the server lets it. */
export const BLOCK = `\
def read_first(path):
    with open(path) as file:
        lines = file.readlines()
        return [line.strip() for line in lines]


def read_second(path):
    with open(path) as file:
        lines = file.readlines()
        return [line.strip() for line in lines]


def read_third(path):
    with open(pa`;

/** The same line behind characters of one, two, three and four bytes, and of one and two UTF-16 units. */
export const WIDE = `\
gruß = "漢字 👍 é", join_words(left, right, limit=100)
größe = "漢字 👍 é", join_words(left, right, limit=100)
grün = "漢字 👍 é", join_wor`;

/** Goes on in many ways, none of them much more likely than the others. */
export const OPEN = `\
towns = ["Paris", "Lyon", "Nice", "`;
