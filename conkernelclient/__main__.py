import sys
from conkernelclient.demo import main
if __name__ == '__main__': sys.exit(main())
